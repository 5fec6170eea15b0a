"""How surprising a text is to n-gram models of its language, trained in the pipeline: a quality signal (cc_net,
arXiv:1911.00359, which buckets pages by it).

`reference` chooses what the models learn, `language_models` trains them, `scores` measures every document.
"""
