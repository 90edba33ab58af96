package org.fedstep

import com.cloudbees.groovy.cps.NonCPS

/** From a step's options to the environment of its script. No step is called. */
class Options implements Serializable {

    private static final long serialVersionUID = 2L
    private static final Map<String, String> OUTCOMES = [UNSTABLE: 'unstable', FAILURE: 'failed']

    /** What is wrong with the options that were given, "" where all of them exist. */
    @NonCPS
    static String complaint(String step, Map given, Map defaults) {
        List unknown = given.keySet().findAll { key -> !defaults.containsKey(key) } as List
        if (!unknown) { return '' }
        String known = defaults.keySet().join(', ')
        return "${step}: ${unknown.join(', ')} is no option of it. The options are: ${known}"
    }

    /** The defaults with what was given instead, null being nothing given. */
    @NonCPS
    static Map merged(Map given, Map defaults) {
        Map options = defaults + given.findAll { option -> option.value != null }
        Object junit = options.junit ?: []
        options.globs = (junit in Collection ? junit : [junit])*.toString().findAll()
        options.archive = options.history == 'archive' ? "fedstep-archive/history${suffix(options.cell)}.tgz" : ''
        return options
    }

    /** Whether a build with this result of Jenkins came to an end from which something can be learned. */
    @NonCPS
    static boolean ended(String result) {
        return result == 'SUCCESS' || OUTCOMES.containsKey(result)
    }

    /** fedstep's word for a result of Jenkins; "" for a success so far, of which the tests tell more. */
    @NonCPS
    static String outcome(String result) {
        return OUTCOMES[result] ?: ''
    }

    /** The variables of the script. Values go this way alone: nothing in them is read by a shell. */
    @NonCPS
    static List<String> environment(Map options, long startedAt, long begunAt) {
        List<String> variables = [
            "FEDSTEP_CI_STARTED_AT=${startedAt}",
            "FEDSTEP_HISTORY=${options.archive ? '.fedstep' : options.history}",
            "FEDSTEP_STEP_STARTED_AT=${begunAt}", // installing fedstep is no part of the build
            "FEDSTEP_STRICT=${options.strict}",
            "WITH_ARCHIVE=${options.archive}",
            "WITH_COMMAND=${options.command}",
            "WITH_PACKAGE=${options.package}",
            "WITH_PYTHON=${options.python}",
            "WITH_JUNIT=${options.globs.join('\n')}",
        ]
        // An empty variable would hide what the agent or fedstep's own configuration file says.
        if (options.aggregator) { variables << "FEDSTEP_AGGREGATOR=${options.aggregator}" }
        if (options.failOn) { variables << "FEDSTEP_FAIL_ON=${options.failOn}" }
        if (options.forgiveAbove?.toString()) { variables << "FEDSTEP_FORGIVE_ABOVE=${options.forgiveAbove}" }
        if (options.cell) { variables << "FEDSTEP_CI_CELL=${options.cell}" }
        if (options.outcome) { variables << "FEDSTEP_OUTCOME=${options.outcome}" }
        variables.addAll(options.variables ?: [])
        options.globs.eachWithIndex { glob, number -> variables << "WITH_JUNIT_${number}=${glob}" } // for cmd.exe
        return variables*.toString()
    }

    @NonCPS
    private static String suffix(Object cell) {
        return cell ? "-${cell.toString().replaceAll('[^A-Za-z0-9.]+', '-')}" : ''
    }

}
