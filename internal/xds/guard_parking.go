//go:build !unguarded_parking

package xds

// guardParking keeps a rejected resource from being sent again.
const guardParking = true
