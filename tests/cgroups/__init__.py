"""Cgroups: deep ones, frozen ones, big ones, and the processes inside."""
