"""Pages of a run: views that give data, the client that draws them, and what puts both into files.

Data comes in through the views, which ask named queries; it goes out as one HTML file, or a folder
of them. A view knows nothing of files, and the client nothing of where its data is from.
"""
