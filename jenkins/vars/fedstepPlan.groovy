import org.fedstep.Options

/**
 * Chooses the tests of this build and divides them among machines; fedstepPlan.txt is its help. Returns branches for
 * `parallel`, each of which calls the body with its number, from 1.
 */
Map<String, Closure> call(Map given = [:], Closure body) {
    Map defaults = [
        shards          : 1,                        // number of machines
        unit            : '',                       // what stays together: 'file', 'class' or 'test'
        confidence      : '',                       // such as 0.95; without confidence, share and time all tests run
        share           : '',                       // of the test time, such as 0.2
        time            : '',                       // predicted time of the tests that run, such as '10m'
        shadow          : false,                    // run all tests, and only tell what would have been left out
        names           : '',                       // file with the names of the tests; else those of the history
        history         : '.fedstep',               // a folder of the workspace; 'git' or 'archive'
        gitCredentialsId: '',                       // of a user with a password or token, with history: 'git'
        cell            : '',                       // what tells this run from others of the job, say a matrix cell
        describe        : true,                     // a line in the build's description
        strict          : false,                    // whether the build fails when something is degraded
        minutes         : 5,                        // at most, installation included
        python          : '',                       // 3.11 or newer; else python3, on Windows python
        package         : 'fedstep[train]==0.1.0',  // as fedstepTrain's: an agent keeps one environment for both
        command         : '',                       // an installed fedstep, to install nothing
    ]
    String complaint = Options.complaint('fedstepPlan', given, defaults)
    if (complaint) { error(complaint) }
    Map options = Options.merged(given, defaults)
    if (!(options.shards.toString() ==~ /[1-9][0-9]{0,2}/)) {
        error("fedstepPlan: shards is a number from 1 to 999, not ${options.shards}")
    }
    List<String> variables = ["FEDSTEP_TOTAL=${options.shards}".toString()]
    for (String name in ['unit', 'confidence', 'share', 'time', 'shadow', 'names']) {
        variables << "FEDSTEP_${name.toUpperCase()}=${options[name]}".toString()
    }
    Map told = fedstepRun('plan', options + [variables: variables])
    return branches(options.shards as int, told.finding.plan ?: '', body)
}

/** Without a plan the names of the tests divide them, the same on all machines. */
private Map<String, Closure> branches(int shards, String plan, Closure body) {
    Map<String, Closure> branches = [:]
    for (int number = 1; number <= shards; number++) {
        int index = number // each closure needs its own
        branches["shard ${index}".toString()] = {
            withEnv(["FEDSTEP_INDEX=${index}".toString(), "FEDSTEP_PLAN=${plan}".toString()]) { body(index) }
        }
    }
    return branches
}
