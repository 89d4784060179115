"""Every figure of the course, one function each, from arrays or tables to a matplotlib Figure."""

from utils.figures.methods import by_class_size, gains_by_bin, head_tail_trade_off
from utils.figures.mistakes import genus_confusion, grad_cam, mistakes_by_kind
from utils.figures.scores import (
    against_baselines,
    f1_against_images,
    left_to_the_machine,
    predicted_classes,
    reliability,
    scores_by_bin,
    scores_by_family,
)
from utils.figures.sheets import augmentations, head_and_tail, nearest_sheets, sheets, throughput
from utils.figures.shown import table
from utils.figures.style import BIN_COLOURS, BIN_MARKERS, italic
from utils.figures.tail import (
    class_bins,
    class_weight_curves,
    distance_heatmap,
    distance_histogram,
    genus_sizes,
    images_per_family,
    institutions,
    lorenz_curve,
    rank_frequency,
)
from utils.figures.training import (
    cross_entropy_curve,
    learning_rate_range,
    learning_rate_schedule,
    scores_against_time,
    training_curves,
)
