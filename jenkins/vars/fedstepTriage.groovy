import org.fedstep.Findings
import org.fedstep.Options

/** Judges the failures of this build, and records nothing; fedstepTriage.txt is its help. Returns a plain map. */
Map call(Map given = [:]) {
    Map defaults = [
        junit           : [],                       // globs of JUnit reports: a text, or a list of texts
        history         : '.fedstep',               // a folder of the workspace; 'git' or 'archive'
        gitCredentialsId: '',                       // of a user with a password or token, with history: 'git'
        cell            : '',                       // what tells this run from others of the job, say a matrix cell
        describe        : true,                     // a line in the build's description
        failOn          : '',                       // 'regressions': fail unless every failure is forgiven
        forgiveAbove    : '',                       // with failOn: failures at least as likely flaky, such as 0.95
        strict          : false,                    // whether the build fails when something is degraded
        minutes         : 5,                        // at most, installation included
        python          : '',                       // 3.11 or newer; else python3, on Windows python
        package         : 'fedstep[train]==0.1.0',  // as fedstepTrain's: an agent keeps one environment for both
        command         : '',                       // an installed fedstep, to install nothing
    ]
    String complaint = Options.complaint('fedstepTriage', given, defaults)
    if (complaint) { error(complaint) }
    Map options = Options.merged(given, defaults)
    Map judged = Findings.verdicts(fedstepRun('triage', options))
    // Without a verdict the build fails, too: its tests may have run so that their failures do not end it.
    if (options.failOn && judged.verdict != 'passed') {
        error("fedstep: ${judged.verdict ? 'not every failure is forgiven' : 'no verdict, for the reason above'}")
    }
    return judged
}
