"""Cgroups: deep ones, frozen ones, big ones, and who lives in which."""
