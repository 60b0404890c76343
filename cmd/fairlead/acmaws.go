package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/awsacm"
)

func newACMFetchedCommand() *cobra.Command {
	flags := &operatorFlags{}
	cmd := &cobra.Command{
		Use:   "fetched",
		Short: "List what a server with --acm aws holds of AWS, and what it could not fetch",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := flags.connect(cmd)
			if err != nil {
				return err
			}
			var list awsacm.FetchedList
			raw, err := o.call(cmd.Context(), http.MethodGet, "/fairlead/v1/acm-fetched", nil, &list)
			if err != nil {
				return err
			}
			return o.print(raw, func(w io.Writer) {
				fmt.Fprintln(w, "ARN\tCHANGED\tFAILS SINCE\tWHY")
				for _, f := range list.Fetched {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", f.Arn, timeOrDash(f.Fetched), timeOrDash(f.Since), cmp.Or(f.Failure, "-"))
				}
			})
		},
	}
	flags.add(cmd)
	return cmd
}

func timeOrDash(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Format(time.DateTime)
}

func newACMEventCommand() *cobra.Command {
	flags := &operatorFlags{}
	cmd := &cobra.Command{
		Use:   "event FILE",
		Short: "Have a server with --acm aws look at the certificates of an EventBridge event at once",
		Long: `Hands an event of ACM, as EventBridge delivers it, to a server with --acm aws, which
then looks at the certificates that it names instead of within a minute. FILE is a
JSON file, - is standard input.`,
		Args: oneArg("a file with an event, or -"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := flags.connect(cmd)
			if err != nil {
				return err
			}
			event, err := readEventFile(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			var answer awsacm.EventAnswer
			raw, err := o.call(cmd.Context(), http.MethodPost, "/fairlead/v1/acm-events", event, &answer)
			if err != nil {
				return err
			}
			return o.print(raw, func(w io.Writer) {
				if len(answer.Refreshed) == 0 {
					fmt.Fprintln(w, "No spec names a certificate of this event.")
				}
				for _, arn := range answer.Refreshed {
					fmt.Fprintln(w, arn)
				}
			})
		},
	}
	flags.add(cmd)
	return cmd
}

func readEventFile(name string, stdin io.Reader) (json.RawMessage, error) {
	var text []byte
	var err error
	if name == "-" {
		text, err = io.ReadAll(io.LimitReader(stdin, awsacm.MaxEvent+1))
	} else {
		text, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, fmt.Errorf("read the event: %w", err)
	}
	if !json.Valid(text) {
		return nil, usagef("%s: it is not JSON", name)
	}
	return text, nil
}
