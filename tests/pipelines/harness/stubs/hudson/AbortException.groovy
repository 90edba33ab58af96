package hudson

/** Stands in for what `error` and failing steps of Jenkins throw: its message alone is printed, without a stack. */
class AbortException extends IOException {
    AbortException(String message) { super(message) }
}
