"""Calibration sets, and the fits of calibrators on them.

The steps of a fit, one module each:

1. `request`: what a client or the refit policy asks for, validated.
2. `queue`: the fit as a row of the database; one process claims it and keeps a lease on it.
3. `runner`: the thread of each process that claims fits and runs them one after another.
4. `process` and `worker`: the child process, and the code in it that fits and judges.
5. `outcome`: the candidate is promoted, becomes a shadow, or is only stored.
6. `policy`: requests a refit after an alarm or after every N labelled rows.

The rows come in through `uploads` and `upload_body`; `stored_sets` keeps them by content, in
`set_files` or `remote_set_files`, as `set_location` decides.
"""
