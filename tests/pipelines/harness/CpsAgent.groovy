import com.cloudbees.groovy.cps.Continuable
import com.cloudbees.groovy.cps.Continuation
import com.cloudbees.groovy.cps.CpsTransformer
import com.cloudbees.groovy.cps.Envs
import com.cloudbees.groovy.cps.Outcome
import com.cloudbees.groovy.cps.TransformerConfiguration
import com.cloudbees.groovy.cps.impl.CpsCallableInvocation
import org.codehaus.groovy.control.CompilerConfiguration
import org.codehaus.groovy.runtime.GroovyCategorySupport
import org.jenkinsci.plugins.workflow.cps.persistence.IteratorHack

/**
 * Runs a scenario as a controller does: all scripts and classes of the library are transformed into continuation passing
 * style, a step suspends the program, and the suspended program is serialized. A method that is called in a way that the
 * transformation does not support is an error. Needs classes of Jenkins on the class path: groovy-cps, guava, and
 * workflow-cps, whose IteratorHack makes iterators serializable.
 */
class CpsAgent extends Agent {
    static CpsAgent current
    static GroovyShell shell

    Object run() {
        current = this
        CpsCallableInvocation.registerMismatchHandler({ Object on, String name, Object actual, String called ->
            throw new IllegalStateException("expected to call ${on?.class?.name}.${name}, but called ${called}")
        } as CpsCallableInvocation.MismatchHandler)
        return super.run()
    }

    Object begun(Script jenkinsfile) { drive(new Continuable(jenkinsfile)) }

    Object begun(Script step, Map options) { body { options == null ? step.call() : step.call(options) } }

    Script bound(File file) {
        shell = shell ?: transforming()
        return COMPILED.computeIfAbsent(file) { shell.parse(it).class }.newInstance()
    }

    private GroovyShell transforming() {
        CpsTransformer transformer = new CpsTransformer()
        transformer.configuration = new TransformerConfiguration()
        CompilerConfiguration configuration = new CompilerConfiguration()
        configuration.addCompilationCustomizers(transformer)
        configuration.scriptBaseClass = CpsScript.name
        configuration.classpath = "${library}/src"
        return new GroovyShell(getClass().classLoader, new Binding(), configuration)
    }

    /** The value of a call that may be of transformed code. */
    private Object body(Closure call) {
        try {
            return call()
        } catch (CpsCallableInvocation invocation) {
            return drive(new Continuable(invocation.invoke(Envs.empty(), null, Continuation.HALT)))
        }
    }

    private Object drive(Continuable program) {
        Outcome given = new Outcome(null, null)
        while (true) {
            Outcome out = GroovyCategorySupport.use(Continuable.categories + IteratorHack, { program.run0(given) })
            if (!program.resumable) { return out.replay() }
            new ObjectOutputStream(new ByteArrayOutputStream()).writeObject(program)
            List wanted = out.normal
            try {
                given = new Outcome(step(*wanted), null)
            } catch (Throwable problem) {
                given = new Outcome(null, problem)
            }
        }
    }

    private Object passable(Object one) { one instanceof Closure ? { Object... none -> body { one.call() } } : one }

    private Object step(String name, List given) {
        List passed = given.collect { one -> one instanceof Map ? one.collectEntries { key, value -> [(key): passable(value)] } : passable(one) }
        return steps()[name].call(*passed)
    }
}
