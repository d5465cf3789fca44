"""Names of Keras' own objects: read by *inspect*, which has to know them without Keras.

Legacy configs (`.h5`, Keras 2) name a class without a module, and every config names losses,
metrics and activations by bare strings. Whether such a name is Keras' own has to be known without
importing Keras, since inspecting a file must be quick, and must work where Keras is not installed.

Made from the public API of Keras 3.10 and 3.15: the classes of `keras.layers`, `losses`, `metrics`,
`optimizers`, `optimizers.schedules`, `initializers`, `regularizers`, `constraints`, `activations`,
`models`, `dtype_policies`, `quantizers` and `random`, with `Functional`; and the functions of
`losses`, `metrics` and `activations` with the identifiers that their `get()` functions and those of
`optimizers`, `initializers`, `regularizers` and `constraints` take. Left out: functions that load,
save or convert. A test compares the lists with the installed Keras.
"""

from __future__ import annotations

__all__ = ["CLASSES", "IDENTIFIERS"]

CLASSES = frozenset(
    """
    AUC AWQConfig AWQDTypePolicy AbsMaxQuantizer Accuracy Activation ActivityRegularization
    Adadelta Adafactor Adagrad Adam AdamW Adamax AdaptiveAveragePooling1D
    AdaptiveAveragePooling2D AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D
    AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout Attention AugMix AutoContrast
    Average AveragePooling1D AveragePooling2D AveragePooling3D AvgPool1D AvgPool2D AvgPool3D
    BatchNormalization Bidirectional BinaryAccuracy BinaryCrossentropy BinaryFocalCrossentropy
    BinaryIoU CTC CategoricalAccuracy CategoricalCrossentropy CategoricalFocalCrossentropy
    CategoricalGeneralizedCrossEntropy CategoricalHinge CategoryEncoding CenterCrop Circle
    Concatenate ConcordanceCorrelation Constant Constraint
    ContrastLimitedAdaptiveHistogramEqualization Conv1D Conv1DTranspose Conv2D Conv2DTranspose
    Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Convolution1D Convolution1DTranspose
    Convolution2D Convolution2DTranspose Convolution3D Convolution3DTranspose CosineDecay
    CosineDecayRestarts CosineSimilarity Cropping1D Cropping2D Cropping3D CutMix DTypePolicy
    DTypePolicyMap Dense DepthwiseConv1D DepthwiseConv2D Dice Discretization Dot Dropout ELU
    EinsumDense Embedding Equalization ExponentialDecay F1Score FBetaScore FalseNegatives
    FalsePositives Flatten FlaxLayer Float8QuantizationConfig FloatDTypePolicy Ftrl Functional
    GPTQConfig GPTQDTypePolicy GRU GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D
    GlobalAveragePooling2D GlobalAveragePooling3D GlobalAvgPool1D GlobalAvgPool2D
    GlobalAvgPool3D GlobalMaxPool1D GlobalMaxPool2D GlobalMaxPool3D GlobalMaxPooling1D
    GlobalMaxPooling2D GlobalMaxPooling3D GlorotNormal GlorotUniform GroupNormalization
    GroupQueryAttention HashedCrossing Hashing HeNormal HeUniform Hinge Huber Identity
    IdentityInitializer Initializer InputLayer InputSpec Int4DTypePolicy Int4QuantizationConfig
    Int8QuantizationConfig IntegerLookup InverseTimeDecay IoU JaxLayer KLDivergence L1 L1L2 L2
    LSTM LSTMCell Lamb Lambda Layer LayerNormalization LeakyReLU LearningRateSchedule
    LecunNormal LecunUniform Lion LogCosh LogCoshError Loss LossScaleOptimizer Masking MaxNorm
    MaxNumBoundingBoxes MaxPool1D MaxPool2D MaxPool3D MaxPooling1D MaxPooling2D MaxPooling3D
    Maximum Mean MeanAbsoluteError MeanAbsolutePercentageError MeanIoU MeanMetricWrapper
    MeanSquaredError MeanSquaredLogarithmicError MelSpectrogram Metric MinMaxNorm Minimum MixUp
    Model MultiHeadAttention MultiOptimizer Multiply Muon Nadam NonNeg Normalization OneHotIoU
    OneHotMeanIoU Ones Optimizer OptimizerMap Orthogonal OrthogonalInitializer
    OrthogonalRegularizer PReLU PearsonCorrelation Permute PiecewiseConstantDecay Pipeline
    Poisson PolynomialDecay Precision PrecisionAtRecall QuantizationConfig QuantizedDTypePolicy
    QuantizedFloat8DTypePolicy Quantizer R2Score RMSNormalization RMSprop RNN RandAugment
    RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop
    RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue
    RandomInvert RandomNormal RandomPerspective RandomPosterization RandomRotation
    RandomSaturation RandomSharpness RandomShear RandomTranslation RandomUniform RandomZoom ReLU
    Recall RecallAtPrecision Regularizer RepeatVector Rescaling Reshape Resizing
    ReversibleEmbedding RootMeanSquaredError SGD STFT STFTInitializer STFTSpectrogram
    ScheduleFreeAdamW SeedGenerator SensitivityAtSpecificity SeparableConv1D SeparableConv2D
    SeparableConvolution1D SeparableConvolution2D Sequential SimpleRNN SimpleRNNCell Softmax
    Solarization SparseCategoricalAccuracy SparseCategoricalCrossentropy
    SparseTopKCategoricalAccuracy SpatialDropout1D SpatialDropout2D SpatialDropout3D
    SpecificityAtSensitivity SpectralNormalization SquaredHinge StackedRNNCells StringLookup
    Subtract Sum TFSMLayer TextVectorization TimeDistributed TopKCategoricalAccuracy
    TorchModuleWrapper TrueNegatives TruePositives TruncatedNormal Tversky UnitNorm
    UnitNormalization UpSampling1D UpSampling2D UpSampling3D VarianceScaling Wrapper
    ZeroPadding1D ZeroPadding2D ZeroPadding3D Zeros constant glorot_normal glorot_uniform
    he_normal he_uniform identity l1 l1_l2 l2 lecun_normal lecun_uniform max_norm min_max_norm
    non_neg ones orthogonal orthogonal_regularizer random_normal random_uniform stft
    truncated_normal unit_norm variance_scaling zeros
    """.split()
)

IDENTIFIERS = frozenset(
    """
    BCE KLD LossFunctionWrapper MAE MAPE MSE MSLE acc accuracy adadelta adafactor adagrad adam
    adamax adamw auc bce binary_accuracy binary_crossentropy binary_focal_crossentropy
    binary_io_u categorical_accuracy categorical_crossentropy categorical_focal_crossentropy
    categorical_generalized_cross_entropy categorical_hinge ce celu circle
    concordance_correlation constraint cosine_similarity crossentropy ctc dice elu exponential
    f1_score f_beta_score false_negatives false_positives ftrl gelu glu hard_shrink hard_sigmoid
    hard_silu hard_swish hard_tanh hinge huber initializer io_u kl_divergence kld l1l2
    leaky_relu linear lion log_cosh log_cosh_error log_sigmoid log_softmax lossscaleoptimizer
    mae mape mean mean_absolute_error mean_absolute_percentage_error mean_io_u
    mean_metric_wrapper mean_squared_error mean_squared_logarithmic_error metric mish mse msle
    multioptimizer muon nadam normal one one_hot_io_u one_hot_mean_io_u optimizer optimizermap
    pearson_correlation poisson precision precision_at_recall r2_score recall
    recall_at_precision regularizer relu relu6 rmsprop root_mean_squared_error schedulefreeadamw
    selu sensitivity_at_specificity sgd sigmoid silu soft_shrink softmax softplus softsign
    sparse_categorical_accuracy sparse_categorical_crossentropy sparse_plus sparse_sigmoid
    sparse_top_k_categorical_accuracy sparsemax specificity_at_sensitivity squared_hinge
    squareplus sum swish tanh tanh_shrink threshold top_k_categorical_accuracy true_negatives
    true_positives tversky uniform zero
    """.split()
)
