import org.fedstep.Findings
import org.fedstep.Options

/** Learns from the build so far; fedstepTrain.txt is its help. Returns strings by name, "" where not known. */
Map<String, String> call(Map given = [:]) {
    Map defaults = [
        junit           : [],                       // globs of JUnit reports: a text, or a list of texts
        aggregator      : '',                       // URL; without one the project learns from its own history
        credentialsId   : '',                       // of a "secret text" or an id token, for the aggregator
        outcome         : '',                       // passed, unstable or failed; else what Jenkins and the tests say
        history         : '.fedstep',               // a folder of the workspace; 'git' or 'archive'
        gitCredentialsId: '',                       // of a user with a password or token, with history: 'git'
        cell            : '',                       // what tells this run from others of the job, say a matrix cell
        describe        : true,                     // a line in the build's description, and a badge for its failures
        strict          : false,                    // whether the build fails when something is degraded
        minutes         : 5,                        // at most, installation included
        python          : '',                       // 3.11 or newer; else python3, on Windows python
        package         : 'fedstep[train]==0.1.0',  // what pip installs into an environment beside the workspace
        command         : '',                       // an installed fedstep, to install nothing
    ]
    String complaint = Options.complaint('fedstepTrain', given, defaults)
    if (complaint) { error(complaint) }
    String result = currentBuild.currentResult
    if (!given.outcome && !Options.ended(result)) {
        echo "fedstep: the build is ${result}: nothing is learned from it"
        return Findings.told('FEDSTEP_STATUS=skipped').outputs
    }
    Map options = Options.merged(given, defaults)
    return fedstepRun('train', options + [outcome: options.outcome ?: Options.outcome(result)]).outputs
}
