"""Holistic: what weight and activation quantization do to a network, seen on the rings and measured on pictures.

Boo, Shin, Sung, *Quantized Neural Networks: Characterization and Holistic Optimization*, arXiv 2006.00530.

    figures 1, 2, 3, 9, 10      fig2.py      maps of the plane: one sweep, one picture; `_rings.py` measures them
    figure 5, tables 2, 3       table3.py    segmentation, of generated scenes
    figure 6                    fig6.py      wider and deeper ResNets            `_cifar.py` is what these
    figure 7                    fig7.py      narrower MobileNetV2s               four share
    figure 8, table 5           fig8.py      three blocks at one budget
    table 4                     table4.py    the Lipschitz term and the cyclic rate
    figure 11                   fig11.py     the cyclic rate, drawn
    table 1                     table1.py    ImageNet's ResNets, counted; `_networks.py` lists them

Figure 4 shows the blocks themselves; they are `models/resnet.py`. `_retrain.py` is how every network is quantized.
"""
