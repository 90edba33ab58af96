"""One linear task a task: learning by scikit-learn, prediction by a dot product."""
