"""Tests: a folder for each package of the library, and these for promises that span packages:

as_trio       processes in containers take and give what Trio's own do
benchmarks    the benchmarks run
cancellation  an operation that is cancelled, at any checkpoint, is undone or finished
crashes       after a kill of any program at any moment nothing is lost, and nothing is left
docs          the documentation says what the code says
hostile       input and programs that mean harm: refused, or contained
supervisor    the modules at the top: supervisor, leash and run_container
support       no tests: what tests of several folders use
"""
