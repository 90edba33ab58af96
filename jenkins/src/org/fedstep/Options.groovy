package org.fedstep

import com.cloudbees.groovy.cps.NonCPS

/** From a step's options to the environment of its script, and back from what the script printed. No step is called. */
class Options implements Serializable {
    private static final long serialVersionUID = 1L
    private static final List<String> KEYS = [
        'status', 'eta-seconds', 'eta-low', 'eta-high', 'failure-risk',
        'flaky-count', 'flaky-tests', 'failures-flaky', 'failures-real', 'model-version',
    ]
    private static final Map<String, String> OUTCOMES = [SUCCESS: 'passed', UNSTABLE: 'unstable', FAILURE: 'failed']

    /** The defaults with what was given instead, null being nothing given; refuses an option that is none. */
    @NonCPS
    static Map merged(String step, Map given, Map defaults) {
        List unknown = given.keySet().findAll { !defaults.containsKey(it) } as List
        if (unknown) {
            throw new IllegalArgumentException(
                "${step}: ${unknown.join(', ')} is no option of it. The options are: ${defaults.keySet().join(', ')}")
        }
        return defaults + given.findAll { it.value != null }
    }

    /** fedstep's word for a result of Jenkins, "" for a build that did not come to an end. */
    @NonCPS
    static String outcome(String result) {
        return OUTCOMES[result] ?: ''
    }

    @NonCPS
    static List<String> globs(Object junit) {
        return (junit instanceof Collection ? junit : [junit]).collect { it.toString() }.findAll { it }
    }

    /** The variables of the script. Values go this way alone: nothing in them is read by a shell. */
    @NonCPS
    static List<String> environment(Map options, long startedAt) {
        List<String> variables = [
            "FEDSTEP_CI_STARTED_AT=${startedAt}",
            "FEDSTEP_HISTORY=${options.history}",
            "FEDSTEP_STRICT=${options.strict}",
            "WITH_COMMAND=${options.command}",
            "WITH_PACKAGE=${options.package}",
            "WITH_PYTHON=${options.python}",
            "WITH_JUNIT=${options.globs.join('\n')}",
        ]
        // An empty variable would hide what the agent or fedstep's own configuration file says.
        if (options.aggregator) { variables << "FEDSTEP_AGGREGATOR=${options.aggregator}" }
        if (options.cell) { variables << "FEDSTEP_CI_CELL=${options.cell}" }
        if (options.outcome) { variables << "FEDSTEP_OUTCOME=${options.outcome}" }
        options.globs.eachWithIndex { glob, number -> variables << "WITH_JUNIT_${number}=${glob}" } // for cmd.exe
        return variables.collect { it.toString() }
    }

    /** The values of a dotenv text by fedstep's names, "" for those it does not have. */
    @NonCPS
    static Map<String, String> told(String dotenv) {
        Map<String, String> values = [:]
        for (String key : KEYS) { values[key] = '' }
        for (String line : dotenv.readLines()) {
            int end = line.indexOf('=')
            String name = end < 0 ? '' : line.substring(0, end)
            String key = KEYS.find { "fedstep_${it.replace('-', '_')}".equalsIgnoreCase(name) }
            if (key) { values[key] = line.substring(end + 1).trim() }
        }
        return values
    }
}
