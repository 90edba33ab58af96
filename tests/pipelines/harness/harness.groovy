import groovy.json.JsonOutput
import groovy.json.JsonSlurperClassic

/**
 * Runs steps of the shared library as Jenkins would: `groovy harness.groovy LIBRARY AGENT` reads names of files, each a JSON
 * list of scenarios, and answers each with a line, a JSON list of what they came to. `sh` runs a shell with -xe; `bat`
 * is written down. Steps of plugins are there if the scenario names the plugin; a step that is not there is a
 * NoSuchMethodError, as on a controller. AGENT is the class that runs them: Agent, or CpsAgent, which transforms all
 * scripts as a controller does.
 */
Map cameTo(Map scenario) {
    Agent agent = Class.forName(args[1]).newInstance(library: args[0], scenario: scenario, environment: scenario.environment)
    Map result = [:]
    try {
        Object returned = agent.run()
        result.returned = scenario.jenkinsfile ? null : returned
        new ObjectOutputStream(new ByteArrayOutputStream()).writeObject(result.returned) // Jenkins keeps it over a restart
    } catch (Throwable error) {
        result.error = [type: error.class.simpleName, message: error.message]
    }
    return result + [told: agent.told, result: agent.build?.currentResult, description: agent.build?.description]
}

System.in.eachLine { path ->
    println JsonOutput.toJson(new JsonSlurperClassic().parse(new File(path)).collect { cameTo(it) })
}
