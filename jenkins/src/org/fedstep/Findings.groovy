package org.fedstep

import com.cloudbees.groovy.cps.NonCPS
import groovy.json.JsonSlurper

/** What a script printed, as plain maps that outlive a restart of Jenkins. No step is called. */
class Findings implements Serializable {

    private static final long serialVersionUID = 1L
    private static final int MOST_TESTS = 500
    private static final List<String> KEYS = [
        'status', 'eta-seconds', 'eta-low', 'eta-high', 'failure-risk',
        'flaky-count', 'flaky-tests', 'failures-flaky', 'failures-real',
        'failures-unsure', 'failures-muted', 'failures-forgiven', 'failures', 'verdict', 'cause',
        'slower-tests', 'build-time-change', 'model-version',
    ]

    /** The outputs, strings by fedstep's names and "" where not told, and the finding itself, [:] where none came. */
    @NonCPS
    static Map told(String printed) {
        List<String> lines = printed.readLines()
        Map<String, String> outputs = [:]
        for (String key : KEYS) { outputs[key] = '' }
        for (String line : lines) {
            int end = line.indexOf('=')
            String name = end < 0 ? '' : line.substring(0, end)
            String key = KEYS.find { one -> "fedstep_${one.replace('-', '_')}".equalsIgnoreCase(name) }
            if (key) { outputs[key] = line.substring(end + 1).trim() }
        }
        return [outputs: outputs, finding: parsed(lines)]
    }

    /** What a step returns that did not run, or not to its end. */
    @NonCPS
    static Map degraded() {
        return told('FEDSTEP_STATUS=degraded')
    }

    /** The verdicts of a triage for a pipeline to decide by; `onlyFlaky` is false wherever that is not certain. */
    @NonCPS
    static Map verdicts(Map told) {
        Map finding = told.finding
        List<Map> tests = (finding.failures ?: []).collect { failure -> verdict(failure) }
        Map<String, Integer> counts = tests.countBy { test -> test.verdict }
        boolean incident = finding.incident ?: false
        int flaky = counts.flaky ?: 0
        int excused = flaky + (finding.muted ?: []).size()
        boolean wholly = !(finding.reports?.dropped ?: []).any { dropped -> !dropped.kept }
        return [
            status: told.outputs.status,
            failuresFlaky: flaky,
            failuresReal: counts.regression ?: 0,
            failuresUnsure: counts.unsure ?: 0,
            failuresMuted: (finding.muted ?: []).size(),
            onlyFlaky: excused > 0 && flaky == tests.size() && !incident && wholly,
            incident: incident,
            failuresForgiven: (finding.verdict?.forgiven ?: []).size(),
            verdict: told.outputs.verdict,
            cause: told.outputs.cause,
            tests: tests.sort { test -> test.flakyProbability }.take(MOST_TESTS),
        ]
    }

    /** A short text to stand beside the build, "" where no test failed. */
    @NonCPS
    static String badge(Map told, Object cell) {
        List<String> counts = ['flaky', 'real', 'unsure'].collect { verdict ->
            String count = told.outputs["failures-${verdict}".toString()]
            count in ['', '0'] ? '' : "${count} ${verdict}".toString()
        }
        String text = counts.findAll().join(', ')
        return text && cell ? "${cell}: ${text}" : text
    }

    /** A build's description with this line; the line that an earlier step of ours left gives way, all else stays. */
    @NonCPS
    static String description(String before, Object cell, String headline) {
        String mark = cell ? "fedstep (${cell}): " : 'fedstep: '
        List<String> others = (before ?: '').readLines().findAll { line -> !line.startsWith(mark) }
        return (others + "${mark}${headline}").join('\n')
    }

    /** The JSON object among the lines: inside it every line is indented. */
    @NonCPS
    private static Map parsed(List<String> lines) {
        int first = lines.indexOf('{')
        int last = lines.lastIndexOf('}')
        if (first < 0 || last < first) { return [:] }
        return plain(new JsonSlurper().parseText(lines.subList(first, last + 1).join('\n')))
    }

    /** The parser's own maps are read lazily and cannot be serialized. */
    @NonCPS
    private static Object plain(Object value) {
        if (value in Map) {
            Map copy = [:]
            value.each { key, item -> copy[key.toString()] = plain(item) }
            return copy
        }
        return value in List ? value.collect { item -> plain(item) } : value
    }

    @NonCPS
    private static Map verdict(Map failure) {
        return [
            name: failure.test,
            verdict: failure.verdict,
            flakyProbability: failure.flaky_probability as double,
            reasons: failure.reasons*.says,
            type: failure.failure_type,
            file: failure.file,
            line: failure.line,
        ]
    }

}
