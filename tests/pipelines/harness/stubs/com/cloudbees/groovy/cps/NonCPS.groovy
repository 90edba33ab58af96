package com.cloudbees.groovy.cps

/** Stands in for the annotation of Jenkins, which is not there outside of it. */
@interface NonCPS {
}
