"""What RPC libraries do at the end of a connection, measured: probes, peers, results, and the rules for verdicts.

``python -m scoreboard`` (with ``bench`` on the path) measures; ``nox -s scoreboard`` does that, and keeps the peers'
environments.  The modules::

    __main__     the command line: which peers, how often, where the results go
    venvs        one virtual environment for each peer, made once
    probes       what is asked of a peer, A to G: one function each
    cell         one fresh pair of processes, and what they report
    adapters/    the peers: each a program that can be either end
    peers        the list of peers
    results      the results file: read, check, merge, write
    verdicts     good, poor or bad: the rules, and the one run of several that is shown

Only the standard library is used: the driver runs anywhere, and the peers' own environments hold nothing but the peer.
"""
