"""What tests of several folders share: waiting, looking, runtimes, users, streams, bundles."""
