import hudson.AbortException
import java.util.concurrent.TimeUnit
import org.jenkinsci.plugins.workflow.steps.FlowInterruptedException

/** Runs one scenario: the steps of the pipeline, real or recorded, and the scripts of the library. */
class Agent {
    static final Map<File, Class> COMPILED = [:]
    String library
    Map scenario
    Map<String, String> environment
    Build build
    File folder
    long deadline = Long.MAX_VALUE
    List<Map> told = []
    Map<String, Script> vars = [:]

    Object run() {
        folder = new File(environment.WORKSPACE)
        build = new Build(
            number: environment.BUILD_NUMBER as int, result: scenario.result, description: scenario.description,
            startTimeInMillis: scenario.started ?: 1767323045000L)
        new File("${library}/vars").eachFileMatch(~/.*\.groovy/) { vars[it.name - '.groovy'] = bound(it) }
        if (scenario.jenkinsfile) { return begun(bound(new File(scenario.jenkinsfile))) }
        return begun(vars[scenario.step], scenario.options)
    }

    Object begun(Script jenkinsfile) { jenkinsfile.run() }

    Object begun(Script step, Map options) { options == null ? step.call() : step.call(options) }

    Script bound(File file) {
        Script script = COMPILED.computeIfAbsent(file) { new GroovyShell(getClass().classLoader).parse(it).class }.newInstance()
        ExpandoMetaClass meta = new ExpandoMetaClass(script.class, false, true)
        meta.getCurrentBuild = { -> build }
        meta.getEnv = { -> environment }
        meta.getScm = { -> 'scm' }
        meta.getAny = { -> 'any' }
        steps().each { name, step -> meta."${name}" = step }
        vars.keySet().plus(['fedstepRun']).each { name -> meta."${name}" = { Object[] given -> vars[name].call(*given) } }
        meta.methodMissing = { String name, Object given ->
            if (vars.containsKey(name)) { return vars[name].call(*given) }
            throw new NoSuchMethodError("No such DSL method '${name}' found among steps [echo, sh, ...]")
        }
        meta.initialize()
        script.metaClass = meta
        return script
    }

    Map<String, Closure> steps() { core() + plugins() + declarative() }

    Map<String, Closure> core() {
        return [
            isUnix         : { -> scenario.unix != false },
            echo           : { String text -> told << [echo: text]; null },
            error          : { String text -> throw new AbortException(text) },
            unstable       : { String text -> told << [echo: "WARNING: ${text}".toString()]; build.result = 'UNSTABLE'; null },
            libraryResource: { String name -> new File("${library}/resources/${name}").text },
            sh             : { Object given -> shell(given instanceof Map ? given : [script: given.toString()]) },
            bat            : { Map given -> told << [bat: given, environment: environment]; scenario.stdout ?: '' },
            checkout       : { Object given -> null },
            fileExists     : { String name -> new File(folder, name).exists() },
            deleteDir      : { -> folder.deleteDir(); null },
            dir            : { String name, Closure body -> inside(new File(folder, name), body) },
            withEnv        : { List<String> variables, Closure body -> with(variables.collectEntries { split(it) }, body) },
            catchError     : { Object[] given -> caught(given.length > 1 ? given[0] : [:], given[-1]) },
            timeout        : { Map given, Closure body -> limited(given, body) },
            archiveArtifacts: { Map given -> archived(given) },
            parallel       : { Map branches -> told << [branches: branches.keySet() as List]; branches.values().each { it() }; null },
        ]
    }

    Map<String, Closure> plugins() {
        Map known = [
            'credentials-binding': [
                string: { Map given -> given },
                withCredentials: { List<Map> wanted, Closure body ->
                    with(wanted.collectEntries { [(it.variable ?: 'GIT_ASKPASS'): secret(it.credentialsId)] }, body)
                },
            ],
            git: [gitUsernamePassword: { Map given -> given }],
            copyartifact: [specific: { String number -> number }, copyArtifacts: { Map given -> copied(given) }],
            htmlpublisher: [publishHTML: { Map given -> told << [published: given.target]; null }],
            'badge-1': [addShortText: { Map given -> told << [shortText: given]; null },
                        addBadge: { Map given -> throw new IllegalArgumentException('a badge needs an icon') }],
            'badge-3': [addBadge: { Map given -> told << [badge: given]; null }],
        ]
        List<String> there = scenario.plugins ?: ['credentials-binding', 'git', 'copyartifact']
        return there.collectMany { known[it].entrySet() }.collectEntries { [(it.key): it.value] }
    }

    Map<String, Closure> declarative() {
        Map steps = ['pipeline', 'stages', 'steps', 'post', 'always', 'script', 'node', 'options'].collectEntries { name ->
            [(name): { Closure body -> body() }]
        }
        return steps + [
            // The sections after a stage that failed still run, as `post` does.
            stage: { String name, Closure body -> caught([stage: name], body) },
            agent: { Object ignored -> },
            copyArtifactPermission: { String ignored -> },
        ]
    }

    Object inside(File inner, Closure body) {
        File before = folder
        folder = inner
        folder.mkdirs()
        try { return body() } finally { folder = before }
    }

    Object limited(Map given, Closure body) {
        long before = deadline
        deadline = System.nanoTime() + (long) (given.time * TimeUnit.valueOf(given.unit).toNanos(1))
        try { return body() } finally { deadline = before }
    }

    Object caught(Map given, Closure body) {
        try {
            body()
        } catch (Throwable problem) {
            if (problem instanceof FlowInterruptedException && given.catchInterruptions == false) { throw problem }
            told << [echo: "ERROR: ${given.message ?: ''} ${problem.message}".toString()]
            build.result = [build.currentResult, given.buildResult ?: 'FAILURE'].max {
                ['SUCCESS', 'UNSTABLE', 'FAILURE', 'ABORTED'].indexOf(it)
            }
        }
        return null
    }

    Object with(Map more, Closure body) {
        Map before = environment
        environment = environment + more
        try { return body() } finally { environment = before }
    }

    List<String> split(String variable) {
        int end = variable.indexOf('=')
        return [variable.substring(0, end), variable.substring(end + 1)]
    }

    String secret(String id) {
        if (!scenario.credentials?.containsKey(id)) { throw new IllegalStateException("Could not find credentials entry with ID '${id}'") }
        return scenario.credentials[id]
    }

    Object archived(Map given) {
        File file = new File(folder, given.artifacts)
        if (file.exists()) {
            File kept = new File("${scenario.archives}/${build.number}/${given.artifacts}")
            kept.parentFile.mkdirs()
            kept.bytes = file.bytes
        } else if (!given.allowEmptyArchive) {
            throw new AbortException('No artifacts found that match')
        }
        return null
    }

    Object copied(Map given) {
        if (scenario.mayNotCopy) { throw new AbortException("Unable to find project for artifact copy: ${given.projectName}") }
        told << [copied: given]
        File kept = new File("${scenario.archives}/${given.selector}/${given.filter}")
        if (kept.exists()) {
            File target = new File(folder, given.filter)
            target.parentFile.mkdirs()
            target.bytes = kept.bytes
        } else if (!given.optional) {
            throw new AbortException('Failed to copy artifacts')
        }
        return null
    }

    Object shell(Map given) {
        if (scenario.abort) { throw new FlowInterruptedException() }
        File file = File.createTempFile('script', '.sh', new File(environment.WORKSPACE_TMP))
        file.text = given.script
        ProcessBuilder builder = new ProcessBuilder('sh', '-xe', file.path).directory(folder)
        builder.environment().clear()
        builder.environment().putAll(environment)
        Process process = builder.start()
        StringBuilder output = new StringBuilder(), talk = new StringBuilder()
        // The threads are joined below: waitForProcessOutput would start a second pair, which steals what these read.
        List<Thread> readers = [process.consumeProcessOutputStream(output), process.consumeProcessErrorStream(talk)]
        boolean ended = process.waitFor(Math.min(deadline - System.nanoTime(), 300_000_000_000L), TimeUnit.NANOSECONDS)
        if (!ended) { process.destroy() }
        process.waitFor()
        readers.each { it.join(10_000) }
        file.delete()
        told << [sh: given.label ?: given.script, talk: talk.toString(), output: output.toString()]
        if (!ended) { throw new FlowInterruptedException() }
        if (given.returnStatus) { return process.exitValue() }
        if (process.exitValue() != 0) { throw new AbortException("script returned exit code ${process.exitValue()}") }
        return given.returnStdout ? output.toString() : null
    }
}
