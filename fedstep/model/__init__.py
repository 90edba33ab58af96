"""One linear head a task: learning by scikit-learn, prediction by a dot product."""
