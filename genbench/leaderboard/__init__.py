"""From result.json to a leaderboard that regenerates itself: records, rules, submitting, checking, the page.

    submit(runs)     finished runs (training seeds) become one submission directory
    check(path)      everything that can be derived is derived again; every problem is listed
    build(root)      the text of leaderboard/README.md (`page.write` makes index.html and the schema too)

Nothing here unpickles or instantiates what a submitter wrote: a submission is data. Torch is imported only
where distances are derived again (submit, check) and where images are drawn again (verify).
"""

from genbench.leaderboard.checking import Problem, check
from genbench.leaderboard.page import build
from genbench.leaderboard.record import Result
from genbench.leaderboard.submitting import submit

__all__ = ["Problem", "Result", "build", "check", "submit"]
