"""AutoQNN: a scheme for every tensor by search, a width for every tensor by learning, quantizers by graph rewriting.

Gong et al., *AutoQNN: An End-to-End Framework for Automatically Quantizing Neural Networks*, arXiv 2304.03782.

    figure 2, table 1           fig2.py              what each scheme loses on which numbers
    table 2                     table2.py            average bits, counted again
    tables 3, 4                 table3.py            learned widths beside fixed ones
    table 5                     table5.py            news told apart by an LSTM
    table 6                     table6.py            a language model on Penn Treebank
    table 7, figures 6 to 9     table7.py            QSS, QPL and every single scheme on VGG-like
    the main job                mnist_equal_size.py  on MNIST, beside everything else of its size
    the cost                    search_cost.py       of an epoch of search

Figures 1 and 3 to 5 explain; nothing in them can be run. `_pictures.py` trains a float network once and retrains all
policies alike, `_baselines.py` makes greedy and random ones.
"""
