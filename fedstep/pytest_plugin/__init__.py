"""Record the attempts of a pytest session and rerun flaky failures."""
