"""Tests: a folder for each package of the library, and these, for what is in no package:

as_trio       processes in containers take and give what Trio's own do
benchmarks    the benchmarks run
cancellation  whatever is cancelled, at any checkpoint, undoes itself or is finished
crashes       whoever is killed, at any moment: nothing is lost, and nothing is left
docs          the documentation says what the code says
hostile       input and programs that mean harm: refused, or contained
supervisor    the modules at the top: the supervisor itself, its leash and run_container
support       no tests: what tests of several folders use
"""
