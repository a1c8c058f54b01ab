package integration

import "guesthouse.example/harness"

// from returns the Spec of a machine that starts from a source.
func from(source harness.Source, spec harness.Spec) harness.Spec {
	spec.From = source
	return spec
}
