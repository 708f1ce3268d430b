"""Binary, B-1: two values; 0 belongs to the lower one."""

from staircase import draw

from tinyqnn.quant import Binary

if __name__ == "__main__":
    draw(__file__, Binary(), "Binary, B-1: ±E|x|; 0 goes to −α")
