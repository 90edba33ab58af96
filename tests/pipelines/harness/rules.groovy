import groovy.json.JsonOutput
import org.codehaus.groovy.ast.ClassCodeVisitorSupport
import org.codehaus.groovy.ast.ClassNode
import org.codehaus.groovy.ast.ConstructorNode
import org.codehaus.groovy.ast.FieldNode
import org.codehaus.groovy.ast.MethodNode
import org.codehaus.groovy.ast.expr.ClosureExpression
import org.codehaus.groovy.ast.expr.MethodCallExpression
import org.codehaus.groovy.control.CompilationUnit
import org.codehaus.groovy.control.Phases
import org.codehaus.groovy.control.SourceUnit

/**
 * What Jenkins' way of running pipelines (continuation passing style) forbids, and Groovy does not see: `groovy
 * rules.groovy FILE...` prints a JSON list of what is wrong. A step cannot be called where nothing can be suspended: in
 * a @NonCPS method, a constructor, an initial value, toString, equals, hashCode, compareTo; nor can a method that is
 * not @NonCPS. A closure that Groovy's own library calls to compare cannot be suspended either.
 */
class Rules extends ClassCodeVisitorSupport {
    static final Set<String> STEPS = [
        'addBadge', 'addShortText', 'archiveArtifacts', 'bat', 'build', 'catchError', 'checkout', 'copyArtifacts',
        'deleteDir', 'dir', 'echo', 'error', 'fileExists', 'git', 'input', 'isUnix', 'junit', 'libraryResource', 'node',
        'parallel', 'powershell', 'pwd', 'pwsh', 'readFile', 'readJSON', 'retry', 'sh', 'sleep', 'stage', 'stash',
        'step', 'timeout', 'unarchive', 'unstable', 'unstash', 'waitUntil', 'warnError', 'withCredentials', 'withEnv',
        'writeFile',
    ]
    static final Set<String> NEVER_SUSPENDED = ['toString', 'equals', 'hashCode', 'compareTo']
    static final Set<String> COMPARING = ['sort', 'toSorted', 'min', 'max', 'unique', 'toUnique', 'countBy', 'groupBy']
    SourceUnit sourceUnit
    List<String> wrong = []
    ClassNode type
    String place

    void visitClass(ClassNode node) {
        type = node
        if (!node.script && !node.interfaces.any { it.nameWithoutPackage == 'Serializable' }) {
            report(node, "class ${node.nameWithoutPackage} is not Serializable")
        }
        super.visitClass(node)
    }

    void visitField(FieldNode node) { inside('an initial value') { super.visitField(node) } }

    protected void visitConstructorOrMethod(MethodNode node, boolean isConstructor) {
        String kind = isConstructor ? 'a constructor' : isNonCps(node) ? 'a @NonCPS method' : null
        kind = kind ?: NEVER_SUSPENDED.contains(node.name) ? kind ?: node.name : null
        inside(kind) { super.visitConstructorOrMethod(node, isConstructor) }
    }

    void visitMethodCallExpression(MethodCallExpression call) {
        String name = call.methodAsString
        if (place && call.implicitThis && STEPS.contains(name)) { report(call, "step ${name} in ${place}") }
        if (place && call.implicitThis && type.getMethods(name ?: '').any { !isNonCps(it) }) {
            report(call, "${name}, which is not @NonCPS, in ${place}")
        }
        if (!place && COMPARING.contains(name) && call.arguments.any { it instanceof ClosureExpression }) {
            report(call, "a closure for ${name} outside of @NonCPS")
        }
        super.visitMethodCallExpression(call)
    }

    boolean isNonCps(MethodNode node) { node.annotations.any { it.classNode.nameWithoutPackage == 'NonCPS' } }

    void inside(String kind, Closure body) {
        String before = place
        place = kind
        try { body() } finally { place = before }
    }

    void report(Object node, String text) { wrong << "${new File(sourceUnit.name).name}:${node.lineNumber}: ${text}".toString() }
}

println JsonOutput.toJson(args.collectMany { path ->
    CompilationUnit unit = new CompilationUnit()
    SourceUnit source = unit.addSource(new File(path))
    unit.compile(Phases.CONVERSION)
    Rules rules = new Rules(sourceUnit: source)
    source.AST.classes.each { rules.visitClass(it) }
    rules.wrong
})
