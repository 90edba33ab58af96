import com.cloudbees.groovy.cps.Continuable
import com.cloudbees.groovy.cps.SerializableScript
import org.codehaus.groovy.runtime.InvokerHelper

/** The base of transformed scripts: what is no method of theirs is a variable of the library, or a step. */
abstract class CpsScript extends SerializableScript {
    Object invokeMethod(String name, Object given) {
        Script variable = CpsAgent.current.vars[name]
        if (variable) { return InvokerHelper.invokeMethod(variable, 'call', given) }
        if (CpsAgent.current.steps().containsKey(name)) { return Continuable.suspend(name, [name, given as List]) }
        throw new NoSuchMethodError("No such DSL method '${name}' found among steps [echo, sh, ...]")
    }

    Object getProperty(String name) {
        Map known = [currentBuild: CpsAgent.current.build, env: CpsAgent.current.environment, scm: 'scm', any: 'any']
        return known.containsKey(name) ? known[name] : super.getProperty(name)
    }
}
