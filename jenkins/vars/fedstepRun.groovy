import org.fedstep.Findings
import org.fedstep.Options
import org.jenkinsci.plugins.workflow.steps.FlowInterruptedException

/** What the three steps share; not for pipelines, whose options it would not check. Returns `Findings.told`. */
Map call(String subcommand, Map options) {
    Map told = Findings.degraded()
    politely(options.strict, "fedstep ${subcommand} did not run; the build goes on") {
        told = limited(subcommand, options)
    }
    if (options.describe && told.finding.headline) {
        politely(false, 'fedstep could not describe the build') { describe(subcommand, options, told) }
    }
    return told
}

/** Runs the body. What goes wrong is printed and changes no result, unless strict; a person's abort goes on. */
private void politely(boolean strict, String message, Closure body) {
    if (strict) {
        body()
    } else {
        catchError([message: message, buildResult: 'SUCCESS', stageResult: 'SUCCESS', catchInterruptions: false], body)
    }
}

private Map limited(String subcommand, Map options) {
    long begun = System.currentTimeMillis()
    try {
        return withSecrets(options) {
            timeout(time: options.minutes, unit: 'MINUTES') {
                withEnv(Options.environment(options, currentBuild.startTimeInMillis, begun)) {
                    Findings.told(remembering(subcommand, options))
                }
            }
        }
    } catch (FlowInterruptedException interruption) {
        // A person's abort goes on. The causes would tell it from our time-out, but the sandbox hides them.
        boolean early = System.currentTimeMillis() - begun < (options.minutes as long) * 60000L
        if (options.strict || early) { throw interruption }
        echo "WARNING: fedstep ${subcommand} took more than ${options.minutes} minutes; the build goes on"
        return Findings.degraded()
    }
}

/** Secrets reach the script as variables, which Jenkins masks in the log. */
private Object withSecrets(Map options, Closure body) {
    List bindings = []
    if (options.credentialsId) { bindings << string(credentialsId: options.credentialsId, variable: 'FEDSTEP_TOKEN') }
    if (options.gitCredentialsId) { bindings << gitUsernamePassword(credentialsId: options.gitCredentialsId) }
    return bindings ? withCredentials(bindings, body) : body()
}

/** What the script printed; with `history: 'archive'` between the history's coming and going. */
private String remembering(String subcommand, Map options) {
    if (!options.archive) { return script(subcommand) }
    dir('fedstep-archive') { deleteDir() } // what the checkout has there is no history of ours
    politely(options.strict, 'no archived history was copied; fedstep takes the one of the workspace') {
        restore(options.archive)
    }
    try {
        return script(subcommand)
    } finally {
        if (subcommand == 'train') { archiveArtifacts(artifacts: options.archive, allowEmptyArchive: true) }
        dir('fedstep-archive') { deleteDir() }
    }
}

/** Copies the archive of the newest build that has one; an aborted build has none. */
private void restore(String archive) {
    Object build = currentBuild.previousBuild
    for (int looked = 0; build && looked < 10 && !fileExists(archive); looked++) {
        try {
            copyArtifacts(
                projectName: "/${env.JOB_NAME}", selector: specific("${build.number}"), filter: archive, optional: true)
        } catch (NoSuchMethodError missing) {
            error("history: 'archive' needs the Copy Artifact plugin of Jenkins")
        }
        build = build.previousBuild
    }
}

/** Standard output of the script: the outputs as dotenv, and the finding as JSON. */
private String script(String subcommand) {
    String label = "fedstep ${subcommand}"
    return withEnv(["WITH_SUBCOMMAND=${subcommand}"]) {
        if (isUnix()) {
            return sh(label: label, returnStdout: true, script: libraryResource('org/fedstep/step.sh'))
        }
        // cmd.exe misses labels in a file whose lines do not end in CR LF.
        String text = libraryResource('org/fedstep/step.bat').replace('\r', '').replace('\n', '\r\n')
        return bat(label: label, returnStdout: true, script: text)
    }
}

private void describe(String subcommand, Map options, Map told) {
    currentBuild.description = Findings.description(currentBuild.description, options.cell, told.finding.headline)
    String text = subcommand == 'train' ? Findings.badge(told, options.cell) : ''
    if (text) { badge(text) }
}

/** Versions 1 and 2 of the badge plugin have addShortText, 2 and 3 an addBadge that needs no icon. */
private void badge(String text) {
    try {
        addShortText(text: text)
    } catch (NoSuchMethodError absent) {
        try {
            addBadge(text: text)
        } catch (NoSuchMethodError none) {
            return // the plugin is not installed: a normal state
        }
    }
}
