"""Asking a store.

A snapshot comes in; ``database`` answers with results. ``questions`` are what can be asked by a
name, ``checks`` holds them against a run, ``reading`` gets rows and arrays, ``analyses`` compute
what SQL cannot say, ``results`` prints and exports, ``figures`` draws and ``report`` puts both on
a page. None of it changes a store.
"""
