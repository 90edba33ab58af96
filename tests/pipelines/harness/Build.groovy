/** What a pipeline sees as `currentBuild`; on a controller it is serializable, too. */
class Build implements Serializable {
    int number
    String result, description
    long startTimeInMillis
    String getCurrentResult() { result ?: 'SUCCESS' }
    Build getPreviousBuild() { number > 1 ? new Build(number: number - 1) : null }
}
