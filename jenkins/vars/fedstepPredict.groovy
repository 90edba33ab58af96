import org.fedstep.Options

/** Says what to expect of this build; fedstepPredict.txt is its help. Returns a map of strings, empty where not known. */
Map<String, String> call(Map given = [:]) {
    Map options = Options.merged('fedstepPredict', given, [
        history: '.fedstep',               // folder of the history, kept in the workspace
        cell   : '',                       // what tells this run from others of the same job, say a matrix cell
        strict : false,                    // whether the build fails when something is degraded
        minutes: 5,                        // at most, installation included
        python : '',                       // 3.11 or newer; else python3, on Windows python
        package: 'fedstep[train]==0.1.0',  // as fedstepTrain's: an agent keeps one environment for both
        command: '',                       // an installed fedstep, to install nothing
    ])
    return fedstepRun('predict', options + [aggregator: '', credentialsId: '', outcome: '', globs: []])
}
