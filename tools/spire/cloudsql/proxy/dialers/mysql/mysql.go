// Package mysql is empty: SPIRE's server imports Google's dialer for its effect
// alone, and the tests keep its data in SQLite.
package mysql
