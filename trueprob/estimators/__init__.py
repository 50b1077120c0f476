"""Calibrators as scikit-learn estimators (extra `sklearn`).

`LogitCalibrator` takes logits as X. `CalibratedModel` wraps a fitted classifier:

    model = RandomForestClassifier().fit(X_train, y_train)
    calibrated = CalibratedModel(model).fit(X_held_out, y_held_out)
    calibrated.predict_proba(X_new)

Unlike `CalibratedClassifierCV` it never fits the classifier, so give it rows that the classifier
was not fitted on. `import trueprob` does not import this package, which needs scikit-learn.
"""

from trueprob.estimators.calibrated_model import CalibratedModel
from trueprob.estimators.logit_calibrator import LogitCalibrator

__all__ = ["CalibratedModel", "LogitCalibrator"]
