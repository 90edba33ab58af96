/** Stands in for the annotation by which a Jenkinsfile loads a library. */
@interface Library {
    String value()
}
