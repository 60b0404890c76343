module github.com/GoogleCloudPlatform/cloudsql-proxy

go 1.26.0
