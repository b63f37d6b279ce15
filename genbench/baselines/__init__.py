"""Recorded results of the recipes: what `experiment=DATASET/NAME` gave, kept small enough for a checkout.

    python -m genbench.baselines record RUN [RUN ...]    finished runs of experiments, into baselines/
    python -m genbench.baselines build                   baselines/README.md, figures, tables in README.md
    python -m genbench.baselines check                   pages are up to date, recipes still those recorded
    python -m genbench.baselines reproduce [NAME ...]    trained again from their commands; the same scores?

    baselines/<dataset>/<name>/seed<k>/result.json           the record, with the resolved configuration
                                       metrics.jsonl         the log: losses and scores on the way
                                       samples/grid.png
                               curves.png                    both, of all seeds

A seed's folder is a run directory without its checkpoints, so whatever reads a finished run reads it:
`genbench compare baselines/digits/edm/seed0 runs/mine`.
"""
