"""What holds for every test: no time limit on generated examples, for a loaded machine says nothing about the code."""

from hypothesis import HealthCheck, settings

settings.register_profile("fedstep", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fedstep")
