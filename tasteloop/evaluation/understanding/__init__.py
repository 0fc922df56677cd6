"""Behavioural tests of understanding: whether what people say and do moves the answers as it
should (after CheckList, Ribeiro et al. 2020, https://arxiv.org/abs/2005.04118).
"""
