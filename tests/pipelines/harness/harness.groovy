import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import java.util.concurrent.TimeUnit
import org.jenkinsci.plugins.workflow.steps.FlowInterruptedException

/**
 * Runs steps of the shared library as Jenkins would: `groovy harness.groovy LIBRARY SCENARIOS` reads a JSON list of
 * scenarios and prints a JSON list of what each one came to. `sh` runs a shell with -xe; `bat` is written down.
 */
class Agent {
    String library
    Map scenario
    Map<String, String> environment
    long deadline = Long.MAX_VALUE
    List<Map> told = []
    Map<String, Script> steps = [:]

    Object run() {
        ['fedstepTrain', 'fedstepPredict', 'fedstepRun'].each { name ->
            steps[name] = bound(new GroovyShell(getClass().classLoader).parse(new File("${library}/vars/${name}.groovy")))
        }
        if (scenario.jenkinsfile) {
            return bound(new GroovyShell(getClass().classLoader).parse(new File(scenario.jenkinsfile))).run()
        }
        return scenario.options == null ? steps[scenario.step].call() : steps[scenario.step].call(scenario.options)
    }

    Script bound(Script script) {
        ExpandoMetaClass meta = new ExpandoMetaClass(script.class, false, true)
        Map result = [currentResult: scenario.result ?: 'SUCCESS', startTimeInMillis: scenario.started ?: 1767323045000L]
        meta.getCurrentBuild = { -> result }
        meta.getEnv = { -> environment }
        meta.isUnix = { -> scenario.unix != false }
        meta.echo = { String text -> told << [echo: text] }
        meta.libraryResource = { String name -> new File("${library}/resources/${name}").text }
        meta.sh = { Object given -> shell(given instanceof Map ? given : [script: given.toString()]) }
        meta.bat = { Map given -> told << [bat: given, environment: environment]; return scenario.stdout ?: '' }
        meta.string = { Map given -> given }
        meta.withEnv = { List<String> variables, Closure body ->
            with(variables.collectEntries { [(it.substring(0, it.indexOf('=')).toString()): it.substring(it.indexOf('=') + 1)] }, body)
        }
        meta.withCredentials = { List<Map> wanted, Closure body ->
            with(wanted.collectEntries { [(it.variable): secret(it.credentialsId)] }, body)
        }
        meta.timeout = { Map given, Closure body ->
            long before = deadline
            deadline = System.nanoTime() + (long) (given.time * TimeUnit.valueOf(given.unit).toNanos(1))
            try { body() } finally { deadline = before }
        }
        ['fedstepTrain', 'fedstepPredict', 'fedstepRun'].each { name ->
            meta."${name}" = { Object[] given -> steps[name].call(*given) }
        }
        ['pipeline', 'stages', 'steps', 'post', 'always'].each { name -> meta."${name}" = { Closure body -> body() } }
        meta.stage = { String name, Closure body -> body() }
        meta.agent = { Object ignored -> }
        meta.getAny = { -> 'any' }
        meta.initialize()
        script.metaClass = meta
        return script
    }

    Object with(Map more, Closure body) {
        Map before = environment
        environment = environment + more
        try { return body() } finally { environment = before }
    }

    String secret(String id) {
        if (!scenario.credentials?.containsKey(id)) { throw new IllegalStateException("Could not find credentials entry with ID '${id}'") }
        return scenario.credentials[id]
    }

    Object shell(Map given) {
        if (scenario.abort) { throw new FlowInterruptedException() }
        File file = File.createTempFile('script', '.sh', new File(environment.WORKSPACE_TMP))
        file.text = given.script
        ProcessBuilder builder = new ProcessBuilder('sh', '-xe', file.path).directory(new File(environment.WORKSPACE))
        builder.environment().clear()
        builder.environment().putAll(environment)
        Process process = builder.start()
        StringBuilder output = new StringBuilder(), talk = new StringBuilder()
        // The threads are joined below: waitForProcessOutput would start a second pair, which steals what these read.
        List<Thread> readers = [process.consumeProcessOutputStream(output), process.consumeProcessErrorStream(talk)]
        boolean ended = process.waitFor(Math.min(deadline - System.nanoTime(), 60_000_000_000L), TimeUnit.NANOSECONDS)
        if (!ended) { process.destroy() }
        process.waitFor()
        readers.each { it.join(10_000) }
        told << [sh: given.label ?: given.script, talk: talk.toString(), output: output.toString()]
        if (!ended) { throw new FlowInterruptedException() }
        if (process.exitValue() != 0) { throw new IOException("script returned exit code ${process.exitValue()}") }
        return given.returnStdout ? output.toString() : null
    }
}

List results = new JsonSlurper().parse(new File(args[1])).collect { scenario ->
    Agent agent = new Agent(library: args[0], scenario: scenario, environment: scenario.environment)
    Map result = [:]
    try {
        Object returned = agent.run()
        result.returned = returned
        new ObjectOutputStream(new ByteArrayOutputStream()).writeObject(returned) // Jenkins keeps it over a restart
    } catch (Throwable error) {
        result.error = [type: error.class.simpleName, message: error.message]
    }
    return result + [told: agent.told]
}
println JsonOutput.toJson(results)
