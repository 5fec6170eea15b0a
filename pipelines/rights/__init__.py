"""May a page be used to train a model? One engine over every machine-readable reservation.

    verdict     directives to allow, disallow or unknown, with the evidence
    site        what the files of a site say of one URL: robots.txt, tdmrep.json, ai.txt, RSL
    robots_txt  the grammar of robots.txt;  agents  crawlers that collect training data
    patterns  paths with * and $;  tdmrep, ai_txt, rsl, structured_fields  one format each
    licenses    URL of a licence to its SPDX identifier

A directive is one line of evidence, `source: value`. The crawler writes those of the site's files into
the WARC record of each page, extraction adds those of the page itself, and the verdict reads them all.
"""
