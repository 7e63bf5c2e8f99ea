"""What stands between a submission and the board.

A method is code, and code can cheat in the process it runs in; nothing written
in Python can stop that from inside. So there are layers, each of which holds
what the one before it cannot:

`static`     reads a method's source without running it and refuses what a method has no use for
             (clocks, sockets, files, other processes, frames, tasks, changes to other modules).
`traps`      make the common tricks fail loudly in the training process: replaced functions, changed
             global settings, reference solutions asked for by a method, task names looked at.
`scoring`    reads what a training process left behind as hostile data: sizes, types, shapes and the
             parent's own clock; nothing is unpickled. Scores are computed by another process.
`sandbox`    keeps the training process off the network and off the disk (bubblewrap, Landlock).
`bundle`     a submission as one file of hashes, source and rows; `verify` reruns a random part of it.

What is left for a person: a method that carries a task's solution inside its
own formula trains honestly and reproduces. Reviewers read the source; the board
marks results that are too good to be true.
"""
