package apiload

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// Key signs requests.
type Key struct{ ID, Secret, Region, Service string }

// Request is one request of the API. Path and query are escaped, and the query
// is in order: both are signed as they are, so the path has no percent signs.
type Request struct {
	Method, Path, Query string
	Target              string // X-Amz-Target; the body is JSON 1.1 then
	Body                []byte
}

func (r Request) contentType() string {
	if r.Target != "" {
		return "application/x-amz-json-1.1"
	}
	return "application/json"
}

// Client is one kept-alive connection; it is not safe for use by several at once.
type Client struct {
	host    string
	key     Key
	conn    net.Conn
	in      *bufio.Reader
	out     bytes.Buffer
	answer  []byte
	date    string // that signing is derived for
	signing []byte
}

// Dial connects to the API at host:port.
func Dial(address string, key Key) (*Client, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &Client{host: address, key: key, conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Do signs and sends a request and returns the body of the answer, which is
// good until the next request. Any status but 200 is an error.
func (c *Client) Do(r Request) ([]byte, error) {
	now := time.Now().UTC().Format("20060102T150405Z")
	target := r.Path
	if r.Query != "" {
		target += "?" + r.Query
	}
	c.out.Reset()
	fmt.Fprintf(&c.out, "%s %s HTTP/1.1\r\nHost: %s\r\nX-Amz-Date: %s\r\n", r.Method, target, c.host, now)
	signed := "host;x-amz-date"
	if r.Body != nil {
		signed = "content-type;" + signed
		fmt.Fprintf(&c.out, "Content-Type: %s\r\nContent-Length: %d\r\n", r.contentType(), len(r.Body))
	}
	if r.Target != "" {
		signed += ";x-amz-target"
		fmt.Fprintf(&c.out, "X-Amz-Target: %s\r\n", r.Target)
	}
	fmt.Fprintf(&c.out, "Authorization: AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s\r\n\r\n",
		c.key.ID, c.scope(now[:8]), signed, c.sign(r, now, signed))
	c.out.Write(r.Body)
	if _, err := c.conn.Write(c.out.Bytes()); err != nil {
		return nil, err
	}
	status, err := c.read()
	if err == nil && status != 200 {
		err = fmt.Errorf("%s %s %s: %d %s", r.Method, target, r.Target, status, c.answer)
	}
	return c.answer, err
}

func (c *Client) scope(date string) string {
	return date + "/" + c.key.Region + "/" + c.key.Service + "/aws4_request"
}

// sign makes the signature as every SDK does: over a hash of the real body,
// with a signing key that is derived once a day.
func (c *Client) sign(r Request, now, signed string) string {
	body := sha256.Sum256(r.Body)
	canonical := r.Method + "\n" + r.Path + "\n" + r.Query + "\n"
	if r.Body != nil {
		canonical += "content-type:" + r.contentType() + "\n"
	}
	canonical += "host:" + c.host + "\nx-amz-date:" + now + "\n"
	if r.Target != "" {
		canonical += "x-amz-target:" + r.Target + "\n"
	}
	canonical += "\n" + signed + "\n" + hex.EncodeToString(body[:])
	if date := now[:8]; c.date != date {
		key := []byte("AWS4" + c.key.Secret)
		for _, part := range []string{date, c.key.Region, c.key.Service, "aws4_request"} {
			key = mac(key, part)
		}
		c.date, c.signing = date, key
	}
	hash := sha256.Sum256([]byte(canonical))
	return hex.EncodeToString(mac(c.signing, "AWS4-HMAC-SHA256\n"+now+"\n"+c.scope(now[:8])+"\n"+hex.EncodeToString(hash[:])))
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text)) // never fails
	return h.Sum(nil)
}

// read reads an answer, which must have a Content-Length, into c.answer.
func (c *Client) read() (status int, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, fmt.Errorf("read status line: %w", err)
	}
	if len(line) < 12 {
		return 0, fmt.Errorf("status line %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, fmt.Errorf("status line %q", line)
	}
	length := -1
	for {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return 0, fmt.Errorf("read header: %w", err)
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, fmt.Errorf("header %q", line)
			}
		}
	}
	if length < 0 {
		return 0, fmt.Errorf("the answer %d has no Content-Length", status)
	}
	if cap(c.answer) < length {
		c.answer = make([]byte, length)
	}
	c.answer = c.answer[:length]
	_, err = io.ReadFull(c.in, c.answer)
	return status, err
}
