package org.jenkinsci.plugins.workflow.steps

/** Stands in for what an abort or a time-out throws into the steps of Jenkins. */
class FlowInterruptedException extends InterruptedException {
}
