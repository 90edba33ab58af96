import org.fedstep.Options

/** Learns from the build so far; fedstepTrain.txt is its help. Returns a map of strings, empty where not known. */
Map<String, String> call(Map given = [:]) {
    Map options = Options.merged('fedstepTrain', given, [
        junit        : [],                       // globs of JUnit reports: a text, or a list of texts
        aggregator   : '',                       // URL; without one the project learns from its own history
        credentialsId: '',                       // of a "secret text" with the token for the aggregator
        outcome      : '',                       // passed, unstable or failed; else what Jenkins says
        history      : '.fedstep',               // folder of the history, kept in the workspace
        cell         : '',                       // what tells this run from others of the same job, say a matrix cell
        strict       : false,                    // whether the build fails when something is degraded
        minutes      : 5,                        // at most, installation included
        python       : '',                       // 3.11 or newer; else python3, on Windows python
        package      : 'fedstep[train]==0.1.0',  // what pip installs into an environment beside the workspace
        command      : '',                       // an installed fedstep, to install nothing
    ])
    String outcome = options.outcome ?: Options.outcome(currentBuild.currentResult)
    if (!outcome) {
        echo "fedstep: the build is ${currentBuild.currentResult}: nothing is learned from it"
        return Options.told('FEDSTEP_STATUS=skipped')
    }
    return fedstepRun('train', options + [outcome: outcome, globs: Options.globs(options.junit)])
}
