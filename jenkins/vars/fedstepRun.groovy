import org.fedstep.Options
import org.jenkinsci.plugins.workflow.steps.FlowInterruptedException

/** What fedstepTrain and fedstepPredict share; not for pipelines, whose options it would not check. */
Map<String, String> call(String subcommand, Map options) {
    long begun = System.currentTimeMillis()
    try {
        return withToken(options.credentialsId) {
            timeout(time: options.minutes, unit: 'MINUTES') {
                withEnv(Options.environment(options, currentBuild.startTimeInMillis)) { Options.told(script(subcommand)) }
            }
        }
    } catch (FlowInterruptedException interruption) {
        // A person's abort goes on. The causes would tell it from our time-out, but the sandbox hides them.
        if (options.strict || System.currentTimeMillis() - begun < (options.minutes as long) * 60000L) { throw interruption }
        return degraded("fedstep ${subcommand} took more than ${options.minutes} minutes")
    } catch (Exception problem) {
        if (options.strict) { throw problem }
        return degraded("fedstep ${subcommand} did not run: ${problem.message}")
    }
}

/** The text of the dotenv file: both scripts print it, and nothing else, to standard output. */
private String script(String subcommand) {
    String label = "fedstep ${subcommand}"
    withEnv(["WITH_SUBCOMMAND=${subcommand}"]) {
        if (isUnix()) {
            return sh(label: label, returnStdout: true, script: libraryResource('org/fedstep/step.sh'))
        }
        // cmd.exe misses labels in a file whose lines do not end in CR LF.
        String text = libraryResource('org/fedstep/step.bat').replace('\r', '').replace('\n', '\r\n')
        return bat(label: label, returnStdout: true, script: text)
    }
}

private Object withToken(String credentialsId, Closure body) {
    if (!credentialsId) { return body() }
    return withCredentials([string(credentialsId: credentialsId, variable: 'FEDSTEP_TOKEN')], body)
}

private Map<String, String> degraded(String reason) {
    echo "WARNING: ${reason}; the build goes on"
    return Options.told('FEDSTEP_STATUS=degraded')
}
