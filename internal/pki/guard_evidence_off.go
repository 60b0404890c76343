//go:build unguarded_evidence

package pki

const guardEvidence = false
