//go:build !unguarded_evidence

package pki

// guardEvidence makes the steps of a rotation wait; see tools/teeth.txt.
const guardEvidence = true
